/// The classes of Unicode scalars that pre-tokenizer patterns tell apart.
enum ScalarClass: UInt8 {
  /// General category L: `\p{L}`.
  case letter
  /// General category N: `\p{N}` (Nd, Nl and No).
  case number
  /// Property White_Space: `\s`.
  case space
  /// Everything else.
  case other

  init(_ scalar: Unicode.Scalar) {
    if scalar.isASCII {
      self = Self.ascii[Int(scalar.value)]
    } else {
      self.init(properties: scalar.properties)
    }
  }

  private init(properties: Unicode.Scalar.Properties) {
    switch properties.generalCategory {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter:
      self = .letter
    case .decimalNumber, .letterNumber, .otherNumber:
      self = .number
    default:
      self = properties.isWhitespace ? .space : .other
    }
  }

  private static let ascii: [ScalarClass] = (0..<128).map { (value: UInt8) in
    ScalarClass(properties: Unicode.Scalar(value).properties)
  }
}
