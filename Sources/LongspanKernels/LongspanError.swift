/// The one error type of Longspan: a code for programs and one line for people.
///
/// Every throwing call in the package throws this type. The codes below 1,000 are the C library's
/// `lspan_status` numbers; those from 1,000 on belong to the Swift layers.
public struct LongspanError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What kind of failure it was. New codes may be added; compare with the constants.
  public struct Code: RawRepresentable, Hashable, Sendable {
    public let rawValue: Int32

    public init(rawValue: Int32) {
      self.rawValue = rawValue
    }

    /// A value that a call cannot take.
    public static let invalidArgument = Code(rawValue: 1000)
    /// A file that cannot be opened, read or mapped.
    public static let unreadableFile = Code(rawValue: 1010)
    /// A file that cannot be written.
    public static let unwritableFile = Code(rawValue: 1015)
    /// A file whose content breaks its format.
    public static let invalidFile = Code(rawValue: 1020)
    /// A well-formed file or request that asks for something Longspan does not do.
    public static let unsupported = Code(rawValue: 1030)
    /// A text that is empty or not UTF-8.
    public static let invalidText = Code(rawValue: 1040)
    /// More memory than the machine has or gives.
    public static let insufficientMemory = Code(rawValue: 1050)
    /// The caller's progress callback asked to stop.
    public static let cancelled = Code(rawValue: 1060)
  }

  /// What kind of failure it was.
  public let code: Code
  /// One line that names what was wrong and, where there is one, what to do.
  public let message: String

  /// An error; `message` is one line that names what was wrong.
  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { message }
}
