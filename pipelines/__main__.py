"""`python -m pipelines` is `lavie`, for clusters that ship the folders and install nothing."""

import sys

from pipelines.cli import main

sys.exit(main())
