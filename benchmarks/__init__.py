"""What streamkit costs, as ratios against named peers measured in the same run. Not installed with the package."""
