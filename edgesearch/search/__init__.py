"""Label-free search for subnets within budgets."""
