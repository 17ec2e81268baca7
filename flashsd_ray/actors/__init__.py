"""Plain classes, one per role of the pipeline; they run in this process or inside an actor and know neither."""
