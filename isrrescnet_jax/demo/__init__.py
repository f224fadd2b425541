"""A page on which visitors upscale their own pictures: `isrrescnet demo` (extra `demo`).

work     bytes of a picture in, bytes of pictures out; knows of no page
page     what visitors see (Gradio)
server   where it is served, what it takes from strangers, and that nothing stays
"""
