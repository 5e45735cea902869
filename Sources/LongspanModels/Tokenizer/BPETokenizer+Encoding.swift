import LongspanKernels

extension BPETokenizer {
  /// The tokens of `text`.
  ///
  /// - Parameters:
  ///   - text: Any text, also an empty one, which has no tokens.
  ///   - parsingSpecialTokens: Whether the spellings of control tokens, such as "<|im_end|>", become those
  ///     tokens. Pass true for a rendered chat template and false for text from a user, who could otherwise
  ///     forge turns. Tokens that the file calls user-defined are parsed in either case.
  /// - Returns: The ids. Bytes that the vocabulary has no token for (control characters in SmolLM2's) are
  ///   left out, as Hugging Face does.
  public func encode(_ text: String, parsingSpecialTokens: Bool = false) -> [Int32] {
    // A native string's UTF-8 is valid already; copying it makes it contiguous.
    encode(validUTF8: Array(text.utf8).span, parsingSpecialTokens: parsingSpecialTokens)
  }

  /// The tokens of a text given as UTF-8 bytes.
  ///
  /// Each maximal ill-formed part becomes U+FFFD, as in Python's `errors="replace"`. Otherwise as
  /// ``encode(_:parsingSpecialTokens:)``.
  public func encode(bytes: Span<UInt8>, parsingSpecialTokens: Bool = false) -> [Int32] {
    encode(
      bytes.withUnsafeBufferPointer { String(decoding: $0, as: UTF8.self) },
      parsingSpecialTokens: parsingSpecialTokens)
  }

  private func encode(validUTF8 text: Span<UInt8>, parsingSpecialTokens: Bool) -> [Int32] {
    var encoder = PieceEncoder(self)
    var result: [Int32] = []
    result.reserveCapacity(text.count / 4)
    var segmentStart = 0
    var offset = 0
    while offset < text.count {
      let match = vocabulary.special.match(in: text, at: offset, includingControl: parsingSpecialTokens)
      guard let match else {
        offset += 1
        continue
      }
      encoder.encode(text, from: segmentStart, to: offset, into: &result)
      result.append(match.token)
      offset += match.byteCount
      segmentStart = offset
    }
    encoder.encode(text, from: segmentStart, to: offset, into: &result)
    return result
  }
}

/// Encodes segments of text piece by piece, and remembers the pieces that it has seen.
private struct PieceEncoder {
  /// Longer pieces hardly ever come twice and would only fill the memory.
  private static let longestCachedPiece = 64

  private let tokenizer: BPETokenizer
  private var merger: PairMerger
  private var cache: [[UInt8]: [Int32]] = [:]

  init(_ tokenizer: BPETokenizer) {
    self.tokenizer = tokenizer
    self.merger = PairMerger(tokenizer.merges)
  }

  mutating func encode(_ text: Span<UInt8>, from start: Int, to end: Int, into result: inout [Int32]) {
    var start = start
    while start < end {
      let pieceEnd = tokenizer.preTokenizer.endOfPiece(in: text, from: start, to: end)
      let piece = text.extracting(start..<pieceEnd).withUnsafeBufferPointer { Array($0) }
      result.append(contentsOf: tokens(of: piece))
      start = pieceEnd
    }
  }

  private mutating func tokens(of piece: [UInt8]) -> [Int32] {
    guard piece.count <= Self.longestCachedPiece else { return merged(piece) }
    if let known = cache[piece] { return known }
    let tokens = merged(piece)
    cache[piece] = tokens
    return tokens
  }

  private mutating func merged(_ piece: [UInt8]) -> [Int32] {
    if tokenizer.preTokenizer.prefersWholePieces, let token = tokenizer.vocabulary.token(spelling: piece) {
      return [token]
    }
    var result: [Int32] = []
    merger.merge(piece.compactMap { tokenizer.vocabulary.token(byte: $0) }, into: &result)
    return result
  }
}
