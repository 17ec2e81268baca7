"""The pipeline on Ray: lanes, encoders and drafters as actors, who goes where, and what happens when one is lost."""
