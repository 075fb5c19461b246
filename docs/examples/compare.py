from pepr_mlops import Question, compare, load_runs
from pepr_mlops.comparison import pepr
from pepr_mlops.tracking import read

runs = load_runs("digits")  # one tidy row per run, see pepr_mlops.comparison.runs
found = compare(runs, Question(resources=("E", "T")), read.load_evidence(runs))
print(found.scores[["model", "resource", "score", "ci_low", "ci_high"]])

# the PePR curve of one run over its epochs, and its maximum, from which on returns diminish
run_id = runs["run_id"].iloc[0]
epochs = read.load_epochs([run_id], ["performance", "energy/train_wh"])
r = pepr.normalise(epochs["energy/train_wh"], pepr.Bounds(0, epochs["energy/train_wh"].max()))
print(pepr.peak(pepr.curve(epochs["performance"], r)))
