"""Hardware profiles: what passes of a pair cost on this machine, and how often drafts are right.

`draftree profile` makes one; policy auto of `dynamic-tree` uses the one that fits, and no other.
"""

from workbench.profiling.files import StoredProfile, profile_finder, profiles_of_pair

__all__ = ["StoredProfile", "profile_finder", "profiles_of_pair"]
