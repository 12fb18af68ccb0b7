"""Recurrent networks that learn to emit what a hidden Markov model emits."""
