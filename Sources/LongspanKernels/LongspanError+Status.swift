import CKernels

extension LongspanError {
  /// The error for a status that the C library returned: its name and meaning, and what was being done.
  init(_ status: lspan_status, during operation: String) {
    let name = String(cString: lspan_status_name(status))
    let meaning = String(cString: lspan_status_description(status))
    self.init(Code(rawValue: Int32(status.rawValue)), "\(operation): \(meaning) (\(name))")
  }

  /// Throws unless the C library's status is ok.
  @inline(__always)
  static func check(_ status: lspan_status, _ operation: @autoclosure () -> String) throws(LongspanError) {
    guard status == .ok else { throw LongspanError(status, during: operation()) }
  }
}

extension LongspanError.Code {
  /// A required pointer is null (`lspan_status_null_pointer`).
  public static let nullPointer = LongspanError.Code(rawValue: 10)
  /// A dimension is out of its range (`lspan_status_bad_shape`).
  public static let badShape = LongspanError.Code(rawValue: 20)
  /// A stride is negative or makes elements overlap (`lspan_status_bad_stride`).
  public static let badStride = LongspanError.Code(rawValue: 30)
  /// A pointer is not aligned as required (`lspan_status_bad_alignment`).
  public static let badAlignment = LongspanError.Code(rawValue: 40)
  /// An element, block, activation or layout code is unknown (`lspan_status_bad_dtype`).
  public static let badElementType = LongspanError.Code(rawValue: 50)
  /// A size does not fit in 64 bits (`lspan_status_overflow`).
  public static let overflow = LongspanError.Code(rawValue: 60)
  /// The workspace is too small (`lspan_status_workspace_too_small`).
  public static let workspaceTooSmall = LongspanError.Code(rawValue: 70)
  /// A scalar parameter is not finite or out of its range (`lspan_status_bad_value`).
  public static let badValue = LongspanError.Code(rawValue: 80)
  /// An index points outside its tensor (`lspan_status_bad_index`).
  public static let badIndex = LongspanError.Code(rawValue: 90)
  /// The ISA variant does not exist or this CPU cannot run it (`lspan_status_unknown_isa`).
  public static let unknownISA = LongspanError.Code(rawValue: 100)
  /// The C library or the system is out of memory (`lspan_status_out_of_memory`).
  public static let outOfMemory = LongspanError.Code(rawValue: 110)
  /// The executor failed to run the tasks (`lspan_status_executor_failed`).
  public static let executorFailed = LongspanError.Code(rawValue: 120)
  /// The package was compiled with headers of another binary interface than the library's (`lspan_status_abi_mismatch`).
  public static let abiMismatch = LongspanError.Code(rawValue: 130)
}
