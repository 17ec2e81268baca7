"""What a request points at instead of bringing it: fetched only where the operator allows it, bounded in every way."""

from flashsd_ray.serving.addresses.fetching import fetch
from flashsd_ray.serving.addresses.hosts import AllowedHosts

__all__ = ["AllowedHosts", "fetch"]
