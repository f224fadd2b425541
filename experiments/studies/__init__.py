"""Studies: a question about differentiable solvers each, in minutes on two cores."""
