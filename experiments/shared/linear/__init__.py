"""Linear stacks: exact training, and the closed forms at which their layers go out."""
