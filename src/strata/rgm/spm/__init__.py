"""The discrete renormalization generative model, of states and counts instead of weights."""
