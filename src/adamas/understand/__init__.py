"""What does weight decay do, to one model and in general?"""
