"""About the code itself: how large it is, which way a call goes through it, where its time goes."""
