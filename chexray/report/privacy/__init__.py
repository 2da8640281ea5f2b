"""Privacy rows on a terminal: verdicts in words first, then the counts they rest on, then what they cannot see."""
