"""The lens: pages that show which tokens each selection rule keeps, from a run's token files.

The pages open from disk. They load rollouts by chunk, as scripts, because a page that was opened
from disk may not fetch files.
"""

from reasontrain.lens.site import write_lens

__all__ = ["write_lens"]
