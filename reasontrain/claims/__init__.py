"""Claims of papers, tested on the testbed: settings, a sweep of runs, verdicts and their page."""
