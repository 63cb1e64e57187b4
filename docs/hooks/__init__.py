"""What MkDocs does besides its own work: pages made of code, and pages that stand elsewhere in the repository."""
