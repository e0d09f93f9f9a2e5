"""What another static tree would have accepted on a stored run, and what that would have cost."""
