"""Evaluation of features: accuracies of subnets and their rank correlation with scores."""
