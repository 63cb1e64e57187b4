"""Who may ask for what: API keys, and what each of them may still do."""
