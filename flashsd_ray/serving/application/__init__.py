"""The Ray Serve application: edges as deployments in front of a fleet of lanes and encoders.

``serve deploy`` finds it as ``flashsd_ray.serving.application:build``; ``flashsd serve`` runs the same.
"""

from flashsd_ray.serving.application.build import build

__all__ = ["build"]
