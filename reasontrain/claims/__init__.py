"""Claims of papers tested as runs: settings, sweeps, verdicts and the page of results."""
