"""From a commit to a running stack: images, registry, release, rollback."""
