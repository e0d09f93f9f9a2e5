"""One run on several ranks: trees drafted together, a target cut in shares, and who does what."""
