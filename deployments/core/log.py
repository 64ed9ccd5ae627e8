"""The service's logger: a child of Serve's own, so that its lines land in the replicas' log files.

Put the job into the message as `video_id=...`: Serve's logger drops an extra field called `job_id`.
"""

import logging

logger = logging.getLogger("ray.serve.video")
