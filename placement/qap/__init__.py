"""A solver of quadratic assignment problems, with lower bounds."""
