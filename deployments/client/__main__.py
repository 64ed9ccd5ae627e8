"""`python -m deployments.client` is `video-service`."""

import sys

from deployments.client.cli import main

sys.exit(main())
