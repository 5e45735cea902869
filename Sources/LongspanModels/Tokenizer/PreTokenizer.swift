import LongspanKernels

/// Splits text into the pieces within which byte-pair merges may happen.
///
/// Each rule is the hand-written equivalent of the regular expression of the Hugging Face tokenizer of that
/// family, with the semantics of its regex engine (leftmost alternative first, `\s` = White_Space). All pieces
/// together are the text, and splitting takes linear time.
struct PreTokenizer: Sendable {
  /// A family of pre-tokenizers.
  enum Rule: Sendable {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+` (Radford et al. 2019).
    case gpt2
    /// Every number scalar is a piece of its own; what is between them is split as by ``gpt2``.
    case smollm
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    case llama3
    /// As ``llama3``, with single number scalars: `\p{N}` in place of `\p{N}{1,3}`.
    case qwen2
  }

  let rule: Rule

  /// The rules by the names that GGUF files use for them in `tokenizer.ggml.pre`.
  private static let rules: [String: Rule] = [
    "default": .gpt2, "gpt-2": .gpt2, "gpt2": .gpt2, "phi-2": .gpt2,
    "olmo": .gpt2, "mpt": .gpt2,
    "smollm": .smollm, "starcoder": .smollm, "refact": .smollm,
    "llama-bpe": .llama3, "llama3": .llama3, "llama-v3": .llama3,
    "qwen2": .qwen2,
  ]

  init(rule: Rule) {
    self.rule = rule
  }

  /// The pre-tokenizer that GGUF files call `name`.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` with code `unsupported`, listing the known names, if there is none.
  init(named name: String, fileName: String) throws(LongspanError) {
    guard let rule = Self.rules[name] else {
      let known = Self.rules.keys.sorted().joined(separator: ", ")
      throw LongspanError(
        .unsupported, "\(fileName): pre-tokenizer '\(name)' is not supported; supported are \(known)")
    }
    self.rule = rule
  }

  /// Whether a piece that is a token as a whole becomes that token even if no merges lead to it.
  var prefersWholePieces: Bool { rule == .llama3 }

  /// The end of the piece that begins at `start`, a scalar boundary below `end`, in UTF-8 `text`.
  func endOfPiece(in text: Span<UInt8>, from start: Int, to end: Int) -> Int {
    let scanner = PieceScanner(text, from: start, to: end)
    return switch rule {
    case .gpt2: scanner.gpt2Piece(numbersEndText: false)
    case .smollm: scanner.gpt2Piece(numbersEndText: true)
    case .llama3: scanner.llama3Piece(longestNumber: 3)
    case .qwen2: scanner.llama3Piece(longestNumber: 1)
    }
  }
}

/// Finds the end of one piece of valid UTF-8 text.
private struct PieceScanner: ~Escapable {
  private let text: Span<UInt8>
  private let start: Int
  private let end: Int

  @_lifetime(copy text)
  init(_ text: Span<UInt8>, from start: Int, to end: Int) {
    self.text = text
    self.start = start
    self.end = end
  }

  /// The GPT-2 rule. With `numbersEndText`, a number is a piece of its own and the text before it is split as
  /// if it ended there.
  func gpt2Piece(numbersEndText: Bool) -> Int {
    if let contraction = contraction(foldingCase: false) { return contraction }
    let first = scalar(at: start)
    if numbersEndText, first.kind == .number { return first.next }

    // ` ?` before a run of one class; a blank alone falls through to the white-space alternatives.
    var body = first
    if first.value == " ", first.next < end { body = scalar(at: first.next) }
    if body.kind != .space, !(numbersEndText && body.kind == .number) {
      return endOfRun(of: body.kind, from: body.next)
    }
    return endOfWhiteSpace(numbersEndText: numbersEndText)
  }

  /// The Llama 3 rule, with numbers of up to `longestNumber` scalars.
  func llama3Piece(longestNumber: Int) -> Int {
    if let contraction = contraction(foldingCase: true) { return contraction }
    let first = scalar(at: start)
    switch first.kind {
    case .letter:
      return endOfRun(of: .letter, from: first.next)
    case .number:
      return endOfNumber(from: first.next, atMost: longestNumber - 1)
    case .space, .other:
      break
    }
    let second = first.next < end ? scalar(at: first.next) : nil
    if !first.isLineBreak, let second, second.kind == .letter {
      return endOfRun(of: .letter, from: second.next)
    }
    if first.kind == .other {
      return endOfLineBreaks(from: endOfRun(of: .other, from: first.next))
    }
    if first.value == " ", let second, second.kind == .other {
      return endOfLineBreaks(from: endOfRun(of: .other, from: second.next))
    }
    return endOfLastLineBreak() ?? endOfWhiteSpace(numbersEndText: false)
  }
}

// MARK: - Alternatives

extension PieceScanner {
  /// `'s|'t|'re|'ve|'m|'ll|'d`.
  private func contraction(foldingCase: Bool) -> Int? {
    guard text[start] == UInt8(ascii: "'"), start + 1 < end else { return nil }
    let first = scalar(at: start + 1)
    switch folded(first.value, foldingCase) {
    case "s", "t", "m", "d":
      return first.next
    case "r", "v":
      return secondLetter("e", at: first.next, foldingCase)
    case "l":
      return secondLetter("l", at: first.next, foldingCase)
    default:
      return nil
    }
  }

  private func secondLetter(_ letter: Unicode.Scalar, at offset: Int, _ foldingCase: Bool) -> Int? {
    guard offset < end else { return nil }
    let second = scalar(at: offset)
    return folded(second.value, foldingCase) == letter ? second.next : nil
  }

  /// Unicode's simple case folding, for the letters of the contractions: besides A to Z only U+017F, the long
  /// s, folds to one of them.
  private func folded(_ scalar: Unicode.Scalar, _ foldingCase: Bool) -> Unicode.Scalar {
    guard foldingCase else { return scalar }
    if scalar == "\u{17F}" { return "s" }
    guard ("A"..."Z").contains(scalar) else { return scalar }
    return Unicode.Scalar(UInt8(scalar.value) | 0x20)
  }

  /// `\s+(?!\S)|\s+`: a run of white space, without its last scalar if text follows and the run is longer than
  /// one scalar.
  private func endOfWhiteSpace(numbersEndText: Bool) -> Int {
    var offset = start
    var last = start
    while offset < end {
      let current = scalar(at: offset)
      guard current.kind == .space else {
        let textEnds = numbersEndText && current.kind == .number
        return textEnds || last == start ? offset : last
      }
      last = offset
      offset = current.next
    }
    return offset
  }

  /// `\s*[\r\n]+`: a run of white space up to and with its last line break, or nil if it has none.
  private func endOfLastLineBreak() -> Int? {
    var offset = start
    var result: Int?
    while offset < end {
      let current = scalar(at: offset)
      guard current.kind == .space else { break }
      offset = current.next
      if current.isLineBreak { result = offset }
    }
    return result
  }

  private func endOfLineBreaks(from offset: Int) -> Int {
    var offset = offset
    while offset < end, text[offset] == UInt8(ascii: "\r") || text[offset] == UInt8(ascii: "\n") {
      offset += 1
    }
    return offset
  }

  private func endOfNumber(from offset: Int, atMost count: Int) -> Int {
    var offset = offset
    var left = count
    while left > 0, offset < end {
      let current = scalar(at: offset)
      guard current.kind == .number else { break }
      offset = current.next
      left -= 1
    }
    return offset
  }

  private func endOfRun(of kind: ScalarClass, from offset: Int) -> Int {
    var offset = offset
    while offset < end {
      let current = scalar(at: offset)
      guard current.kind == kind else { break }
      offset = current.next
    }
    return offset
  }
}

// MARK: - Scalars

extension PieceScanner {
  private struct ScannedScalar {
    let value: Unicode.Scalar
    let kind: ScalarClass
    let next: Int

    var isLineBreak: Bool { value == "\r" || value == "\n" }

    init(_ value: Unicode.Scalar, next: Int) {
      self.value = value
      self.kind = ScalarClass(value)
      self.next = next
    }
  }

  /// Decodes the scalar at `offset`. The text is valid UTF-8, so the lead byte gives the length.
  private func scalar(at offset: Int) -> ScannedScalar {
    let lead = text[offset]
    if lead < 0x80 {
      return ScannedScalar(Unicode.Scalar(lead), next: offset + 1)
    }
    let length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4
    var value = UInt32(lead) & (0x7F >> UInt32(length))
    for index in offset + 1..<offset + length {
      value = value << 6 | UInt32(text[index] & 0x3F)
    }
    return ScannedScalar(Unicode.Scalar(value) ?? "\u{FFFD}", next: offset + length)
  }
}
