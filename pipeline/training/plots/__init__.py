"""The plots of a training: their numbers, their figures, and the files of both."""
