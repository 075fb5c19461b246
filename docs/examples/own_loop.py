"""Measure a training loop that pepr_mlops knows nothing about: scikit-learn, here."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import pepr_mlops

images, labels = load_digits(return_X_y=True)
x, x_test, y, y_test = train_test_split(images, labels, test_size=0.2, random_state=0)
network = MLPClassifier(hidden_layer_sizes=(64,), random_state=0, batch_size=20)
classes = np.unique(y)

with pepr_mlops.measure(
    experiment="digits-own-loop",
    model="mlp64",
    params={"dataset": "digits", "batch_size": 20, "epochs": 3},
    performance="test/accuracy",
    device="cpu",
) as m:
    for _ in range(3):
        network.partial_fit(x, y, classes=classes)  # training
        with m.evaluation():
            accuracy = accuracy_score(y_test, network.predict(x_test))
        m.epoch(performance=accuracy, metrics={"test/accuracy": accuracy})
