"""What keeps a registrar from working here."""
