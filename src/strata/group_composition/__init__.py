"""Networks that learn to multiply in a finite group, one irreducible representation at a time."""
