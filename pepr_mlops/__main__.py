from pepr_mlops.cli import main

main()
