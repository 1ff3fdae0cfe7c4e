"""The policy of a registry: the rules of each protected stage, and the decision on one move."""
