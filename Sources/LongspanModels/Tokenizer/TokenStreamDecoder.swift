import LongspanKernels

/// Turns tokens into text as they are generated.
///
/// A token may end inside a character. Its first bytes are then held back until the character is complete, so
/// that the pieces of text handed out, one after the other, are the text of all tokens together.
public struct TokenStreamDecoder: Sendable {
  private let tokenizer: BPETokenizer
  private let skippingControlTokens: Bool
  private var pending: [UInt8] = []

  /// - Parameters:
  ///   - tokenizer: The tokenizer that the tokens belong to.
  ///   - skippingControlTokens: Whether control tokens, such as "<|im_end|>", are left out instead of spelled.
  public init(_ tokenizer: BPETokenizer, skippingControlTokens: Bool = false) {
    self.tokenizer = tokenizer
    self.skippingControlTokens = skippingControlTokens
  }

  /// Adds a token and returns the text that is now complete, which may be empty.
  ///
  /// - Throws: ``LongspanError`` with code `invalidArgument` if the id is not in the vocabulary.
  public mutating func append(_ token: Int32) throws(LongspanError) -> String {
    pending.append(contentsOf: try tokenizer.bytes(of: token, skippingControlTokens: skippingControlTokens))
    let complete = pending.count - Self.incompleteSuffix(of: pending)
    defer { pending.removeFirst(complete) }
    return String(decoding: pending[..<complete], as: UTF8.self)
  }

  /// Ends the text and returns what was held back: U+FFFD for a character that was never completed.
  public mutating func finish() -> String {
    defer { pending = [] }
    return String(decoding: pending, as: UTF8.self)
  }

  /// The number of bytes at the end that begin a character which more bytes could complete.
  private static func incompleteSuffix(of bytes: [UInt8]) -> Int {
    for count in 1...3 where count <= bytes.count {
      let suffix = bytes.suffix(count)
      guard let lead = suffix.first else { break }
      if lead & 0xC0 == 0x80 { continue }
      guard count < sequenceLength(lead) else { return 0 }
      if count > 1, !secondBytes(lead).contains(bytes[bytes.count - count + 1]) { return 0 }
      return count
    }
    return 0
  }

  private static func sequenceLength(_ lead: UInt8) -> Int {
    switch lead {
    case 0xC2...0xDF: 2
    case 0xE0...0xEF: 3
    case 0xF0...0xF4: 4
    default: 1
    }
  }

  /// The second bytes that may follow a lead byte (Unicode Standard, table 3-7); the others break off the
  /// character at once.
  private static func secondBytes(_ lead: UInt8) -> ClosedRange<UInt8> {
    switch lead {
    case 0xE0: 0xA0...0xBF
    case 0xED: 0x80...0x9F
    case 0xF0: 0x90...0xBF
    case 0xF4: 0x80...0x8F
    default: 0x80...0xBF
    }
  }
}
