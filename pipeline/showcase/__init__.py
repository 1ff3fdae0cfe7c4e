"""The demonstration and the example store; nothing else imports them."""
