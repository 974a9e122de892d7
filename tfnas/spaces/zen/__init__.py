"""Networks of training-free searches, in the notations of ZenNAS and TinyNAS, and the zoo."""
