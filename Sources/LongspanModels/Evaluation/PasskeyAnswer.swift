/// What a model said for a key.
public struct PasskeyAnswer: Sendable, Equatable {
  /// The text that it generated.
  public let text: String
  /// Up to five digits of the first number in it.
  public let digits: String
  /// Digits from the first on that are the key's.
  public let matched: Int
  /// Digits of the key.
  private let length: Int

  /// Compares the first number of an answer with the key.
  public init(_ text: String, key: String) {
    let number = text.utf8.drop { !Self.isDigit($0) }.prefix { Self.isDigit($0) }
    self.text = text
    digits = String(decoding: number.prefix(key.utf8.count), as: UTF8.self)
    matched = zip(digits.utf8, key.utf8).prefix { $0 == $1 }.count
    length = key.utf8.count
  }

  /// Whether all digits are the key's.
  public var isExact: Bool { matched == length }

  /// Share of the key's digits that match from the first on, 0 to 1.
  public var partial: Double { length > 0 ? Double(matched) / Double(length) : 0 }

  /// Whether more text could not change the digits: the number has all of them, or has ended.
  static func isComplete(_ text: String) -> Bool {
    let from = text.utf8.drop { !isDigit($0) }
    let count = from.prefix { isDigit($0) }.count
    return count >= PasskeyTask.digits || count > 0 && count < from.count
  }

  static func isDigit(_ byte: UInt8) -> Bool { byte >= 0x30 && byte <= 0x39 }
}
