"""The label-free search for subnets within budgets."""
