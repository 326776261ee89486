"""Names of the demo school: as mixed in script, length and shape as those of a real one.

A page that cannot show these cannot show a real class: several scripts, two directions, diacritics,
apostrophes, people with one name, and two people with the same one.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple


class Name(NamedTuple):
    """Given and family name; the family name is empty for people with a single name."""

    given: str
    family: str = ""


#: The first students of teacher1's class, which everybody looks at first, are one of each kind.
FIRST_STUDENTS = (
    Name("Zoë", "O’Kafor-Łuk"),
    Name("Jonas", "Müller"),
    Name("Maximiliane Sophie Alexandra", "von Hohenstein-Wittelsbach-Berg"),  # 60 characters
    Name("Олександра", "Коваленко"),
    Name("ليلى", "الحسن"),
    Name("נועה", "לוי"),
    Name("आरव", "शर्मा"),
    Name("欣怡", "王"),
    Name("서연", "김"),
    Name("Anna", "Schmidt"),
    Name("Anna", "Schmidt"),  # another one: only the register number and the face tell them apart
    Name("Nurhaliza"),
    Name("Đặng Thị", "Ngọc Ánh"),
    Name("Seán", "Ó Briain"),
    Name("Dmitrij", "Wagner"),
    Name("Niccolò", "D’Angelo"),
    Name("Þórdís", "Jónsdóttir"),
    Name("İrem", "Yıldız"),
)

_LATIN_GIVEN = """
    Mia Emma Lina Ella Clara Leonie Frieda Ida Mathilda Greta Johanna Marlene Charlotte Paula Nele Jule
    Ben Paul Finn Noah Elias Felix Luis Emil Anton Oskar Theo Moritz Jakob Karl Henri Mats Levin Jannis
    Zeynep Elif Defne Emre Kerem Yusuf Ayşe Çağla Zuzanna Małgorzata Kacper Łukasz Agnieszka Jiří Tereza
    Ondřej Chloé Élodie Maëlle Hélène François Noémie Íñigo Begoña José Renée Søren Åsa Björn Maja Siobhán
    Ainhoa Matilde Giulia Matteo Chiara Luca Andreea Ștefan Ioana Gergő Zsófia Eszter Bence Adaeze Chidi
    Ngozi Kwame Amara Thabo Fatou Linh Minh Priya Rohan Tiago João Conceição Beatriz Siiri Eero Õnne Kärt
""".split()  # noqa: SIM905  # a hundred quoted words are harder to read
_LATIN_FAMILY = """
    Müller Schmidt Schneider Fischer Weber Meyer Wagner Becker Schulz Hoffmann Schäfer Koch Bauer Richter
    Klein Wolf Schröder Neumann Schwarz Zimmermann Braun Krüger Hofmann Hartmann Lange Krause Lehmann Köhler
    Yılmaz Kaya Demir Şahin Çelik Öztürk Kowalska Nowak Wiśniewski Szczepański Dvořák Novotná Černý O’Neill
    O’Connor D’Amico N’Diaye L’Hermite García Núñez Ibáñez López-Ruiz Dubois Lefèvre Gauthier Søndergaard
    Åkesson Nyström Popescu Ionescu Nagy Szűcs Okonkwo Mensah Nkosi Diallo Nguyễn Trần Phạm Patel Iyer
    Gonçalves Magalhães Virtanen Mäkelä Tamm Müürsepp Rossi Bianchi Kovačević Živković Hasanović Petrauskaitė
""".split()  # noqa: SIM905
#: Pools of one script each: given and family names go together.
_OTHERS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (  # Cyrillic
        ("Дмитро", "Софія", "Максим", "Анна", "Тимофій", "Вікторія", "Богдан", "Мария", "Иван", "Лилия"),
        ("Шевченко", "Бондаренко", "Ткачук", "Мельник", "Захарченко", "Кравець", "Лысенко", "Белый"),
    ),
    (  # Arabic, Persian
        ("أحمد", "محمد", "مريم", "يوسف", "نور", "عمر", "زينب", "سارة", "کیان", "نازنین"),
        ("الخطيب", "حداد", "منصور", "العلي", "درويش", "قاسم", "رضایی", "حسینی"),
    ),
    (("נועם", "תמר", "איתי", "מאיה"), ("כהן", "פרידמן", "ביטון", "אברהם")),  # Hebrew
    (("अनन्या", "विवान", "दीया", "कबीर", "ईशान"), ("वर्मा", "गुप्ता", "सिंह", "जोशी")),  # Devanagari
    (("子涵", "浩然", "雨桐", "思远", "梓萱"), ("李", "张", "陈", "刘", "欧阳")),  # Chinese
    (("민준", "지우", "하은", "도윤"), ("이", "박", "최", "남궁")),  # Korean
)
_SINGLE = ("Suharto", "Teferi", "Myint", "Ambika", "Gulalai", "Wanjirũ", "Ikasari")

_TEACHERS = (
    Name("Katharina", "Brandt"),
    Name("Emre", "Öztürk"),
    Name("Siobhán", "O’Sullivan"),
    Name("Jürgen", "Vogt"),
    Name("Małgorzata", "Wójcik"),
    Name("Олена", "Гончар"),
    Name("Ravi", "Subramanian"),
    Name("Chloé", "Lefèvre"),
)


def student_name(random: Random, number: int) -> Name:
    """The name of the student with this number, counted from 1."""
    if number <= len(FIRST_STUDENTS):
        return FIRST_STUDENTS[number - 1]
    if random.random() < 0.02:
        return Name(random.choice(_SINGLE))
    if random.random() < 0.14:
        given, family = random.choice(_OTHERS)
        return Name(random.choice(given), random.choice(family))
    return _latin(random)


def teacher_name(random: Random, number: int) -> Name:
    """The name of the teacher with this number, counted from 1."""
    return _TEACHERS[number - 1] if number <= len(_TEACHERS) else _latin(random)


def guardian_name(random: Random, family: str) -> Name:
    """The name of somebody's guardian: four in five share the family name."""
    for given, families in _OTHERS:
        if family in families:
            return Name(random.choice(given), family)
    own = _latin(random)
    return Name(own.given, family if family and random.random() < 0.8 else own.family)


def sibling_name(random: Random, number: int, family: str) -> Name:
    """The name of a student whose sibling is at the school too."""
    for given, families in _OTHERS:
        if family in families:
            return Name(random.choice(given), family)
    given_name = random.choice(_LATIN_GIVEN)
    return Name(given_name, family) if number > len(FIRST_STUDENTS) else student_name(random, number)


def _latin(random: Random) -> Name:
    given, family = random.choice(_LATIN_GIVEN), random.choice(_LATIN_FAMILY)
    if random.random() < 0.05:
        given = f"{given} {random.choice(_LATIN_GIVEN)}"
    if random.random() < 0.07:
        family = f"{family}-{random.choice(_LATIN_FAMILY)}"
    return Name(given, family)
