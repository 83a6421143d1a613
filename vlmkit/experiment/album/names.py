"""The names that notes of an album are kept under, one token each in the `album` checkpoint."""

from __future__ import annotations

_LISTED = """
    Ada Alba Amir Anke Arlo Asta Axel Bela Bert Birk Bodo Bram Cato Cleo Cora Curt Dana Dag Dario
    Dirk Dora Duke Ebba Edda Egon Eli Elke Emil Enzo Erik Esra Ezra Fay Felix Fenn Finn Flora Franz
    Frida Gabe Gail Gert Gina Glen Gojo Greta Gus Gwen Hal Hanno Heidi Hugo Ida Igor Ilka Imre Inga
    Iris Ivo Jack Jade Jens Jill Joss Jule Jutta Kai Kato Kira Klaus Knut Koji Kurt Lara Leif Lenz
    Lia Lola Loris Lotte Luca Lutz Maja Malte Mark Mei Merle Mika Milo Moritz Nadia Nanni Nele Nico
    Nils Nola Odin Olga Omar Oona Orla Oskar Otto Pablo Paula Pavel Petra Pia Piet Quinn Raja
    Ralf Remy Rhea Rico Rita Romy Rosa Rudi Runa Sami Sean Selma Sepp Silke Sofie Stig Sven Tamar
    Tara Theo Tilda Timo Toby Tom Tove Udo Ulla Uma Urs Uwe Vada Veit Vera Vito Volker Wanda Wei
    Wilma Wolf Xaver Xenia Yago Yara Yuki Yvo Zara Zeno Zita Zora
"""

NAMES = tuple(_LISTED.split())
