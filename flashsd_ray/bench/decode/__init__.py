"""Decoding with drafts against decoding without, ours and the transformers library's, batch by batch in turn."""
