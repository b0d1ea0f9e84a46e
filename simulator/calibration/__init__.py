"""Where the constants of cost tables come from: what they are fitted to, and how well they meet it."""
