"""A sample of text that strains a byte-level BPE tokenizer."""

LINES = [
    "Plain ASCII: The quick brown fox jumps over the lazy dog.",
    "Contractions: I'm you're he'd we'll they've it's don't I'M YOU'RE HE'D WE'LL THEY'VE IT'S 's't're 'sun 'tis rock'n'roll",
    "Curly quotes: I\u2019m you\u2019re \u201cquoted\u201d \u2018single\u2019 \u00abguillemets\u00bb \u2013 \u2014 \u2026",
    "if (x<=3&&y!=4) { return a[i]->b::c<int>(); } // C++  /* comment */ #include <stdio.h>",
    "func f<T: ~Copyable>(_ x: borrowing T) async throws -> Int? { x?.y ?? 0 }  // Swift",
    "fn main() -> Result<(), Box<dyn Error>> { let s = r#\"raw\"#; println!(\"{s:?}\"); Ok(()) }",
    "\tfor i in range(10):\n\t\tprint(f'{i:>4d}')\n        # eight blanks\n   # three",
    "SELECT * FROM t WHERE a='x''y' AND b>=1e-5;--end\nint \u00e4\u00f6\u00fc = 0xFF_FF;  $HOME/.x ~/y a_b __init__ CamelCaseWord",
    "Blanks:  two   three    four                                  many \t tab \t\t tabs  \t mixed ",
    "Trailing blanks   ",
    "",
    "",
    "Blanks before digits: a 1 a  1 a   12 a\t3 a\n4   5.6  7,890 \u00a0 1",
    "Line ends\r\nCRLF\r\n\r\nlone\rCR \r\n  \r\n\x0b\x0cVT FF\x1c\x1d\x1e\x1fseparators\x85NEL\u2028LS\u2029PS",
    "Spaces: a\u00a0b a\u1680b a\u2000b a\u2001\u2002\u2003b a\u2007b \u2009thin\u200ahair a\u202fb a\u205fb a\u3000b \u00a0 \u00a0\u3000  c",
    "Zero width: a\u200bb a\u200cb a\u200db a\u2060b a\u180eb \ufeffBOM soft\u00adhyphen \u061cALM \u200ertl\u200f",
    "Digits Nd: 0 12 345 6789 1234567890 \u0660\u0661\u0662 \u06f3\u06f4\u06f5 \u0967\u0968\u0969 \u09e7\u09e8 \u0e51\u0e52 \uff11\uff12\uff13 \U0001d7d8\U0001d7ec\U0001fbf0 x\u0663y",
    "Digits Nl: \u2160 \u2167 \u216f\u217b \u3007\u3021\u3029 \U00010140\U00012400 \u16ee; No: \u00bd \u00bc\u00be x\u00b2 y\u00b3\u00b9 \u2070\u2080\u2089 \u2460\u2473 \u2776 \u3220 \U0001f100 \u09f4 \U00010107",
    "3.14159 -2e10 1,000,000 $5.99 50% 2026-11-23T10:15:00Z 192.168.0.1 v1.2.3-rc4 a1b2c3 1st 2nd 0x1F",
    "Latin: caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m A\u030angstrom stra\u00dfe STRASSE \u0130stanbul \u0131 \u01c5 \ufb01 \u017f \u1e9e \u01c6 \u02b0 \u00aa\u00ba",
    "Combining: e\u0301\u0302\u0303 Z\u0351\u036b\u0343\u032a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349\u035a\u032f\u031e\u0320\u034dA\u036b\u0357 \u0301lone \u20dd a\u20dd 1\u0301",
    "Greek \u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u03ba\u03cc\u03c3\u03bc\u03b5; Cyrillic \u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0487\u0483; Georgian \u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0 \u1c92; Armenian \u0532\u0561\u0580\u0565\u0582",
    "CJK: \u4f60\u597d\uff0c\u4e16\u754c\uff01 \u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3002\u30ab\u30bf\u30ab\u30ca\u30fc \uff76\uff9e \ud55c\uad6d\uc5b4 \u1112\u1161\u11ab \U00020000\U0002a6d6 \u3105 \u4e00\u4e8c\u4e09",
    "Arabic: \u0627\u0644\u0633\u0644\u0627\u0645 \u0639\u0644\u064a\u0643\u0645 \u0645\u064f\u062d\u064e\u0645\u0651\u064e\u062f \u0640\u0640 \ufefb \u060c\u061f; Hebrew: \u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
    "Devanagari: \u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u0915\u094d\u0937\u0924\u094d\u0930\u093f\u092f \u0915\u094d\u200d\u0937; Tamil \u0bb5\u0ba3\u0b95\u0bcd\u0b95\u0bae\u0bcd; Thai \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35; Bengali \u09a8\u09ae\u09b8\u09cd\u0995\u09be\u09b0",
    "Emoji: \U0001f600 \U0001f44d\U0001f3fd \u2764\ufe0f \u2764 \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea\U0001f1ef 1\ufe0f\u20e3 #\ufe0f\u20e3 \U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f word\U0001f389word",
    "Symbols: \u2211\u222b\u221a\u221e \u2260\u2264 \u2192\u21d2 \u20ac\u00a3\u00a5\u20bf \u00a9\u00ae\u2122 \u00b0C \u266a \u2588\u2591 \U0001d49c \U0001d552 \u2102 ^~`|\\ @#$%&*()_+-=[]{};:'\",.<>/? !!! ... --- ===",
    "Unassigned and private: \u0378 \ue000 \uf8ff \U000f0000 \U0010fffd \ufdd0 \uffff \U0010ffff \ufffd \ufffc",
    "Controls: \x00nul\x01\x07\x08\x1b[31mred\x1b[0m\x7fdel\x80\x9f",
    "Special tokens: <|im_start|>user\nhi<|im_end|>\n<|endoftext|> <|im_start|><|im_start|> <repo_name>x<file_sep> <jupyter_code>1+1 <gh_stars>",
    "Nearly special: <|im_start |> <|im_start| <|IM_START|> <| im_end|> <|im_end|im_end|> |<|im_end|>| <|<|im_end|>|> im_start|>",
    "Runs: " + "a" * 40 + " " + "=" * 70 + " " + "\u00e9" * 9 + " " + "na" * 12 + " " + "!?" * 9 + "\n" * 7 + " " * 33 + "end",
]

INVALID = [
    b"lone continuation: \x80 a\xbfb \x80\x80\x80 end\n",
    b"truncated: \xc3 \xe2\x82 \xe2 \xf0\x9f\x98 \xf0\x9f \xf0 x\xe2\x82y \xf0\x9f\x98z\n",
    b"truncated then lead: \xe2\x82\xc3\xa9 \xf0\x9f\xe2\x82\xac \xf0\x9f\x98\xf0\x9f\x98\x80\n",
    b"overlong: \xc0\x80 \xc1\xbf \xe0\x80\xaf \xe0\x9f\xbf \xf0\x80\x80\xaf \xf0\x8f\xbf\xbf\n",
    b"surrogates: \xed\xa0\x80 \xed\xbf\xbf \xed\xa0\xbd\xed\xb8\x80 \xed\x9f\xbf \xee\x80\x80\n",
    b"beyond: \xf4\x8f\xbf\xbf \xf4\x90\x80\x80 \xf5\x80\x80\x80 \xf8\x88\x80\x80\x80 \xfe\xff \xff\n",
    b"next to text: caf\xe9 na\xefve 1\xb22 <|im_end|\xff> \xff<|im_end|>\xff  \xff\r\n",
    b"at the end: \xe2\x82",
]


def unicode_sample() -> bytes:
    return "\n".join(LINES).encode("utf-8") + b"\n" + b"".join(INVALID)
