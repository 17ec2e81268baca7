"""Who may ask, how often and how much at once: keys, rates and slots, the same for every edge."""

from flashsd_ray.serving.protection.gatekeeper import Admission, Gatekeeper

__all__ = ["Admission", "Gatekeeper"]
