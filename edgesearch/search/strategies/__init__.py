"""Ways to go through a search space; `strategy.make_strategy` chooses one."""
