"""Follow a stage, try each new version in a trial, and swap it in."""
