"""Training-free search: a population of networks, mutated, held against budgets and scored without training."""
